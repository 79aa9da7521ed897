// Polling queues and the stream, and making tables and queues, is not a function's work: Lambda and the deployment do it.
const refuse = (): never => {
  throw new Error("a function neither polls nor makes resources");
};

export { refuse as create, refuse as open, refuse as remove };
