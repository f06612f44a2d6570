"""The store: one DuckDB file that several processes share.

database          connections, locks and transactions
migrations        the schema as a list of migrations
rows              reads and writes rows by column name
arms              reads arms, finds arms by name, finds the base of an arm
plans             writes arms and plans
runs              reads runs, and whether their driver is alive
scores            reads scores as arrays
items             reads items with both arms' answers, page by page
checkpoint_facts  findings and weight changes of checkpoints
decisions         the chain of decisions
store             `Store`: reads and writes records
"""
