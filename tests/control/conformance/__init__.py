"""What every store must do, by its protocol alone (``control.store``). Three pass it; whoever writes another adds it."""
