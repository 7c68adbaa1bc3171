"""What people have, as Alpaca rows: mail, chats, tables. Each reader streams, and says of each row where it came from."""
