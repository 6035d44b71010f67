"""Images of clients, from the string or the URL to pixels, without trusting anything about them."""
