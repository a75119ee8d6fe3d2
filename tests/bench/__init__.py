"""The benchmark beside the peers (``make bench``): every contestant sends the same mail to the same server.

``contestants`` says how each of them is set up and called, ``scenarios`` what is measured, ``run`` does it
round by round, and ``report`` writes it down. Everything is on 127.0.0.1.
"""
