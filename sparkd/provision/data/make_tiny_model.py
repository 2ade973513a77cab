"""Writes one tiny model with random weights that vLLM can serve. Needs no network.

    python make_tiny_model.py OUT --kind llama|qwen3|bert [--context 2048] [--seed 0]

Runs under the Python of a vLLM runtime (torch, transformers, tokenizers), not under sparkd's. The
same arguments give the same files. A model is about 0.3 MB and knows a few hundred words.

What a chat model says is words in random order: its output layer prefers tokens that are words, so
that an answer can be read on a terminal. It hardly ever ends by itself; ask for `max_tokens`.
"""

# Its libraries are those of the runtime, which are not there when sparkd is checked.
# mypy: ignore-errors

import argparse
import json
import random
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

HIDDEN = 64
HEADS = 2
LAYERS = 2

WORDS = """
a able about after again all also an and another answer any are ask at away back be because been
before begin best better big book both bright bring but by call can carry change child city clear
close cloud cold come could count day deep did do does door down draw dream each early earth east
even evening ever every eye fall far fast feel few field find fire first five flow fly follow for
four free friend from full garden gave gentle get give glass go gold good great green grow had hand
has have he hear heart heavy help her here high hill him his hold home hope hour house how i idle if
in into is it its just keep kind know lake large last late laugh leaf learn leave left less let life
light like line little live load long look love made make many may me mean memory might model moon
more morning most mountain move much must my name near need never new next night no north not now of
off often old on once one only open or other our out over own page paper part path people place plan
plant play point quick quiet rain ran read ready real red rest rich ride right river road room round
run said same sand saw sea second see seed sentence seven she shine ship short should show side sing
six sky sleep slow small snow so soft some song soon sound south spark stand star start stay still
stone stop storm story street strong such summer sun table take tell ten than that the their them
then there these they thing think this three through time to today together token tree turn two
under until up us use valley very voice wait walk warm was watch water way we well went were west
what when where which while white who why wide will wind winter wish with wood word work world would
write year yes you young your
""".split()

SPECIAL = ("<|pad|>", "<|begin|>", "<|im_start|>", "<|im_end|>")

# ChatML, with tools and calls as Hermes models write them (`--tool-call-parser hermes`).
CHAT_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}"
    "You can call these tools:\n"
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    'Answer <tool_call>{"name": NAME, "arguments": OBJECT}</tool_call> to call one.<|im_end|>\n'
    "{% endif %}"
    "{% for message in messages %}"
    "{% if not (tools and loop.first and message.role == 'system') %}"
    "<|im_start|>{{ message.role }}\n{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}\n<tool_call>"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}"
    "</tool_call>{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# How likely a token is next, beside each word's 0: logits that are added to random ones. Closing
# marks are common enough for constrained JSON to end soon; every other single byte is very rare.
# The end comes about once in a million tokens, or where a grammar leaves little else.
COMMON = {",": 1.5, ".": 2.5, '"': 1.5, "}": 0.5, "]": 0.5, "<|im_end|>": -9.0}
RARE = -12.0
SPREAD = 1.5  # standard deviation of the random part, in logits


def byte_alphabet():
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def chat_tokenizer(kind, context):
    """Byte-level BPE whose merges spell exactly the words above, each with its leading space.

    Each kind has its own order of words: with the same random numbers, engines that draw tokens
    alike still give different answers, so that one can tell which model spoke.
    """
    words = random.Random(kind).sample(WORDS, len(WORDS))
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *byte_alphabet()))}
    merges = []
    for word in words:
        piece = "Ġ"  # a space, in the byte-level alphabet
        for letter in word:
            if piece + letter not in vocabulary:
                merges.append((piece, letter))
                vocabulary[piece + letter] = len(vocabulary)
            piece += letter
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|begin|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def biases(tokenizer, size):
    """One logit per token, after the names in COMMON and RARE; words have 0."""
    words = {"Ġ" + word for word in WORDS}
    logits = torch.full((size,), RARE)
    for token, index in tokenizer.get_vocab().items():
        if token in words:
            logits[index] = 0.0
        elif token in COMMON:
            logits[index] = COMMON[token]
    return logits


def prefer_words(model, tokenizer):
    """Makes component 0 of the last hidden state a constant, and the output layer use it as bias.

    Every token's embedding starts with the same large number, no layer writes to that component,
    and the final norm brings it to about `sqrt(HIDDEN)`, whatever the text is.
    """
    with torch.no_grad():
        body = model.model
        body.embed_tokens.weight[:, 0] = 100.0
        for layer in body.layers:
            layer.self_attn.o_proj.weight[0, :] = 0.0
            layer.mlp.down_proj.weight[0, :] = 0.0
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight[1:] = 100.0  # gives the others back the size the constant takes away
        body.norm.weight[0] = 1.0 / HIDDEN**0.5
        body.norm.weight[1:] = 100.0 / HIDDEN**0.5
        head = model.lm_head.weight
        head.copy_(torch.randn(head.shape) * SPREAD)
        head[:, 0] = biases(tokenizer, head.shape[0])


def chat_model(kind, context):
    tokenizer = chat_tokenizer(kind, context)
    config_class, model_class = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    }[kind]
    config = config_class(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HIDDEN // HEADS,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = model_class(config)
    prefer_words(model, tokenizer)
    return model, tokenizer


def embedding_model(context):
    marks = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()-"
    tokens = dict.fromkeys((*marks, *letters, *("##" + letter for letter in letters), *WORDS))
    tokenizer = Tokenizer(
        models.WordPiece({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=context,
    )
    config = transformers.BertConfig(
        vocab_size=len(fast),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=context,
        pad_token_id=0,
    )
    return transformers.BertModel(config), fast


def write_pooling(out):
    """The files by which vLLM sees an embedding model: mean over the tokens."""
    pooling = out / "1_Pooling"
    pooling.mkdir()
    kind = "sentence_transformers.models."
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": kind + "Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": kind + "Pooling"},
    ]
    (out / "modules.json").write_text(json.dumps(modules))
    (pooling / "config.json").write_text(
        json.dumps({"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True})
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=("llama", "qwen3", "bert"), required=True)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    torch.manual_seed(wanted.seed)
    if wanted.kind == "bert":
        model, tokenizer = embedding_model(wanted.context)
    else:
        model, tokenizer = chat_model(wanted.kind, wanted.context)
    wanted.out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).eval().save_pretrained(wanted.out)
    tokenizer.save_pretrained(wanted.out)
    if wanted.kind == "bert":
        write_pooling(wanted.out)


if __name__ == "__main__":
    main()
