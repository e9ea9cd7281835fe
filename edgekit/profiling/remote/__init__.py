"""Profile a bundle on another machine, through the system's OpenSSH client (`docs/remote.md`)."""
