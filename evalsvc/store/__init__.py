"""What is kept, in one DuckDB file that several processes share.

database          one file: connections, locks, transactions
migrations        the schema, step by step
rows              rows as records, by column name
arms              rows as arms, arms by name
plans             arms and plans into the database
runs              runs, and whether their driver is alive
scores            scores as arrays
items             items with both arms' answers, page by page
checkpoint_facts  what is known of a checkpoint beyond its scores
decisions         decisions, chained
store             the store: records in, records out
"""
