"""What bounds calls: rate limits, concurrency, circuit breakers, retries, sizes and times."""
