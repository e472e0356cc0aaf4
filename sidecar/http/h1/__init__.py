"""HTTP/1: codecs (``grammar``, ``head``, ``body``: bytes to messages and back), and connections that carry streams."""
