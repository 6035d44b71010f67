"""What is asked of a hierarchy, over any store: walks towards the general, common ancestors, means, order."""
