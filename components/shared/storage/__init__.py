"""The only code that talks to S3, and what it shares with HTTP downloads: retries and the cache of downloads."""
