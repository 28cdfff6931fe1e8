"""One forwarding behaviour a file. Each opens with the facts it keeps and their sources.

To add one: write a file here with a class that keeps the contract of
`plane.element.Element`, add its reasons to `plane.reason`, and give it its place in
a device's wiring (`fabric.host`, `fabric.switch`).
"""
