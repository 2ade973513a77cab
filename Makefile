# `make run`: set up everything and start sparkd. `make test`: set up and run every test.
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
NO_PYTHON = cannot set sparkd up: there is no Python 3.11 or newer (hint: apt install python3 python3-venv)

.PHONY: run test

run:
	@$(or $(PYTHON),$(error $(NO_PYTHON))) -m sparkd.provision.bootstrap fast
	@exec .venv/bin/python -m sparkd.provision

test:
	@$(or $(PYTHON),$(error $(NO_PYTHON))) -m sparkd.provision.bootstrap fast test
	@exec .venv/bin/python -m pytest
