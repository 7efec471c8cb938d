"""Accounts that come from elsewhere, many at once, with the password hashes they have."""
