"""A black-box stand-in for SGLang prefill/decode workers. See README.md."""
