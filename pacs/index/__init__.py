"""Layer 2: the SQL index. The only package that imports SQLAlchemy."""
