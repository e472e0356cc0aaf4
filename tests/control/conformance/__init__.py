"""What every store must do, by its protocol alone. Three pass it; whoever writes another adds it."""
