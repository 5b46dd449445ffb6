"""When the library's functions run, on what, and what is checked. The entry is `orchestration.definitions`."""
