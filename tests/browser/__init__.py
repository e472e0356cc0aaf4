"""The page in a real browser: Debian's chromium without a screen, driven over its own protocol, with real traffic."""
