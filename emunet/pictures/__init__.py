"""Pictures of a lab and of what passed there: values in, SVG or lines of text out."""
