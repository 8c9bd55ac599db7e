"""Common corruptions of images, such as noise, blur and weather."""
