"""Who may call what: bearer tokens, from a file of hashes or signed by others (JWT).

    rights   which right a method needs
    tokens   the file of hashed tokens
    keys     JSON Web Tokens, by a file of public keys
    files    files that are read again when they change
    bearer   the check of one RPC

`python -m service.auth new NAME --rights infer,read` makes a token and its entry.
"""
