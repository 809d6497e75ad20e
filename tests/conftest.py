"""Every test runs as on a machine without an accelerator and without a model hub."""

import os

os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
