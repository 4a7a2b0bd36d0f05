"""Mistakes that a type checker must find: each line with the code of what it finds there."""

import dkv
from dkv import errors, sim

client = dkv.connect(["a:1", "b:2"])
client.put("key", 1)  # arg-type
client.put(1, b"value")  # arg-type
client.put("key")  # call-arg
client.put("key", b"value", write="most")  # arg-type
client.put("key", b"value", "all")  # call-arg
client.put("key", b"value", timeout="1")  # arg-type
client.put("key", None)  # arg-type
client.get("key", read="two")  # call-overload
client.get(None)  # call-overload
client.get_many([1, 2])  # list-item
client.get_many(["key"], errors="ignore")  # call-overload
client.put_many(["key"])  # list-item
client.delete_many([None])  # list-item
client.ring = dkv.Ring(["n1"])  # misc
client.status(1)  # call-arg
text: str = client.get("key")  # assignment
length = len(client.get("key", None))  # arg-type
first = client.get_many(["key"])[0].decode()  # union-attr
records = client.status()["n1"].records  # union-attr
client.get("key").encode()  # attr-defined
client.fetch("key")  # attr-defined
dkv.connect(5)  # arg-type
dkv.connect("a:1", timeout=None)  # arg-type
dkv.Ring(5)  # arg-type
dkv.Ring(["n1"], replication="3")  # arg-type
dkv.Ring(["n1"]).owner(1)  # arg-type
dkv.Member("n1", colour="red")  # call-arg
dkv.Member("n1").weight = 2  # misc
dkv.Cluster(3, port="7001")  # arg-type
dkv.Cluster(3).kill(1)  # arg-type
dkv.Cluster(3, durability="sometimes")  # arg-type
dkv.Cluster(3, limits={"request": 1})  # arg-type
dkv.Node("n1", data="n1")  # call-arg
sim.World(3, seed="1")  # arg-type
sim.World(3).submit("read", "key")  # arg-type
code: int = errors.NotFoundError("").code  # assignment
