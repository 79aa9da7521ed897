/** Names of those who follow the change stream. Under another name one would begin anew, and the audit not find it. */
export const consumers = { outbox: "outbox", views: "views" } as const;
