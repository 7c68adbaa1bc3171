"""What people have, as Alpaca rows: mail, chats, tables. Each reader streams and says where each row came from."""
