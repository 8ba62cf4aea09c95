"""The tests of rxbus; they mirror its modules."""
