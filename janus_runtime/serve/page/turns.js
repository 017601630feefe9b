// Who may ask the server now, and who waits on the page.

export class Turns {
  constructor(most) {
    this.free = most;
    this.waiting = [];
  }

  /** Waits for a turn, which must be given back. */
  async take() {
    if (this.free) this.free -= 1;
    else await new Promise((resolve) => this.waiting.push(resolve));
  }

  give() {
    const next = this.waiting.shift();
    if (next) next();
    else this.free += 1;
  }
}
