"""Every file of text that comes from outside: one reader for YAML and one for JSON, with limits.

bounded     the bytes of a regular file, if there are not too many; unpacked if gzipped
json_files  JSON and JSON lines
yaml_files  YAML, and pydantic models that refuse unknown keys
"""
