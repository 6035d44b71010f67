"""From shards, folders and tables to points: what `train/embed.py` runs, and the Parquet files it writes."""
