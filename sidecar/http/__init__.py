"""HTTP as messages: what a request and a reply are, and what their fields and paths mean, whatever carries them."""
