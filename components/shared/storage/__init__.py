"""The only code that talks to S3, and what HTTP downloads share with it: retries and the download cache."""
