"""What people look at: results as a page, side by side, and against bounds. Pure, but for the drawing of charts."""
