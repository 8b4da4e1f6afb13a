"""What stage 2 trains on: pictures made into tokens once, in shards and in files, and their views and splits."""
