"""When the library's functions run, on what, and what is checked; `definitions` is the entry."""
