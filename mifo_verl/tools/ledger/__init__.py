"""Which demonstrations and prompts a run used: the account of ``ledger.jsonl``, and its audit."""
