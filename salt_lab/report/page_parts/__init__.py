"""What ``salt-lab report`` puts on its page, section by section, and the page's own template, style and script (``page.html``, ``.css``, ``.js``)."""
