"""What goes over the wire, as pydantic models: one file per resource."""
