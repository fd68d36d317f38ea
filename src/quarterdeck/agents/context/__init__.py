"""What of a conversation a model sees: compacted, below a ceiling, results page by page, images where it takes them."""
