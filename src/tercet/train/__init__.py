"""Training adapters: the task protocol, PEFT adapters and the loop. Not yet behind a command (docs/status/2.md)."""
