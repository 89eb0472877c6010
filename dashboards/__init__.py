"""What people look at: pages made from run folders."""
