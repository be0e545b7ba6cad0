"""What only FiftyOne Enterprise has, one module for each; none of it was run against a licensed server."""
