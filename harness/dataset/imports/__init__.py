"""Email, chats and tables as Alpaca rows. Each reader streams, and records the origin of each row."""
