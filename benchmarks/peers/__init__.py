"""What emunet is measured beside, and emunet itself: each builds two pods and what joins them."""
