"""What clients send as pictures, from the string or the URL to pixels, without trusting anything about it."""
