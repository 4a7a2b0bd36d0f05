"""Five nodes under load and faults: what tests/cluster/test_chaos.py is made of."""
