"""HTTP as messages: requests and replies, and the meaning of their fields and paths, whatever protocol carries them."""
