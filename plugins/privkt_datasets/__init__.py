"""Rows from JSON, CSV and Parquet files and from Hugging Face datasets, read strictly."""
