"""Captions in the words of people, and the training of the encoder that reads them."""
