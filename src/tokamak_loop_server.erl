%% SPDX-License-Identifier: Apache-2.0
%% @doc The process of a supervised loop.
%%
%% With handlers it consumes the loop's queue: it sends each handler its events, while the others are
%% parked natively for pollers. With the select backend it also is the process that the VM tells.
%%
%% A handler's mailbox is kept bounded: after a window of events its further ones wait here (and count
%% against the loop's `max_queue') until a helper process has seen that its mailbox got short.
%%
%% What subprocesses and sockets write is bounded in bytes, too. Such an event has a place in the window of its
%% source, which is given back when the handler is sent the event: or, while bytes of its id beyond a bound may
%% be in the mailbox, when the handler has taken enough of them. Without its window the source waits.
%% @private
-module(tokamak_loop_server).
-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, handle_continue/2]).

-include("tokamak_error.hrl").

%% How many events a handler is sent before its mailbox is looked at, and how long that may be.
-define(WINDOW, 1024).
%% How soon a handler that lags is looked at again, in milliseconds; each time twice as long, up to the limit.
-define(FIRST_LOOK, 5).
-define(LAST_LOOK, 1000).
%% How many bytes of one id may be in the mailbox of its handler with their places given back: 16 chunks of 256 KiB.
-define(BYTES, 4_194_304).

-record(account, {
    %% What the handler was sent and may not have taken.
    bytes = 0 :: non_neg_integer(),
    %% Of these, what it was sent since the last look at its mailbox began.
    since = 0 :: non_neg_integer(),
    %% Places of events that it was sent, to be given back.
    places = 0 :: non_neg_integer()
}).

-record(flow, {
    monitor :: reference(),
    ids = #{} :: #{pos_integer() => reference()},
    sent = 0 :: non_neg_integer(),
    %% `open', or what waits while the mailbox is looked at.
    held = open :: open | tokamak_held:held(dispatched()),
    %% Of the ids with events that are bounded in bytes.
    accounts = #{} :: #{pos_integer() => #account{}},
    %% `idle', or how long the look that is under way was put off, in milliseconds.
    look = idle :: idle | non_neg_integer()
}).

-type dispatched() :: {pid(), pos_integer(), tuple()} | {pid(), pos_integer(), tuple(), windowed}.

-record(state, {
    loop :: tokamak_nif:loop(),
    handlers = #{} :: #{pos_integer() => pid()},
    flows = #{} :: #{pid() => #flow{}}
}).

-spec start_link(map()) -> gen_server:start_ret() | {ok, pid(), tokamak_nif:loop()}.
start_link(#{name := Name} = Options) ->
    with_loop(gen_server:start_link({local, Name}, ?MODULE, Options, []));
start_link(Options) ->
    with_loop(gen_server:start_link(?MODULE, Options, [])).

with_loop({ok, Pid}) -> {ok, Pid, gen_server:call(Pid, loop)};
with_loop(Error) -> Error.

%% @private
-spec init(map()) -> {ok, #state{}} | {stop, term()}.
init(#{backend := Backend, max_queue := MaxQueue, max_timers := MaxTimers}) ->
    process_flag(message_queue_data, off_heap),
    case tokamak_nif:loop_open(supervised, Backend, MaxQueue, MaxTimers) of
        {ok, Loop} ->
            ok = select_here(Backend, Loop),
            {ok, #state{loop = Loop}};
        {error, Reason} ->
            {stop, Reason}
    end.

select_here(select, Loop) -> tokamak_nif:loop_select_here(Loop);
select_here(native, _Loop) -> ok.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}}
    | {reply, reference(), #state{}, {continue, dispatch}}
    | {stop, normal, term(), #state{}}.
handle_call(loop, _From, #state{loop = Loop} = State) ->
    {reply, Loop, State};
handle_call({register, Id, Pid}, _From, State) when ?IS_CALLBACK_ID(Id), is_pid(Pid), node(Pid) =:= node() ->
    Reference = make_ref(),
    case tokamak_nif:loop_register(State#state.loop, Id, Pid, Reference) of
        ok ->
            {Held, State1} = take_held(Id, State),
            State2 = add(Id, Pid, Reference, forget(Id, State1)),
            Events = [to_handler(Pid, Reference, Event) || Event <- Held],
            {reply, Reference, deliver(Events, State2), {continue, dispatch}};
        {error, closed} = Error ->
            {stop, normal, Error, State}
    end;
handle_call({unregister, Id}, _From, #state{handlers = Handlers, flows = Flows} = State) ->
    case Handlers of
        #{Id := Pid} ->
            #{Pid := #flow{ids = #{Id := Reference}}} = Flows,
            _ = tokamak_nif:loop_unregister(State#state.loop, Id),
            {reply, {ok, Pid, Reference}, forget(Id, State)};
        _ ->
            {reply, ok, State}
    end;
handle_call(destroy, _From, #state{loop = Loop} = State) ->
    {stop, normal, tokamak_nif:loop_close(Loop), State};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_Request, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {noreply, #state{}, {continue, dispatch}}.
handle_info({tokamak, _Loop, ready}, State) ->
    {noreply, State, {continue, dispatch}};
handle_info({select, Fd, undefined, ready_input}, State) ->
    _ = tokamak_nif:loop_selected(Fd, read),
    {noreply, State};
handle_info({select, Fd, undefined, ready_output}, State) ->
    _ = tokamak_nif:loop_selected(Fd, write),
    {noreply, State};
handle_info({look, Pid, Monitor}, State) ->
    {noreply, look(Pid, Monitor, State)};
handle_info({looked, Pid, Monitor, Seen}, State) ->
    {noreply, looked(Pid, Monitor, Seen, State)};
handle_info({'DOWN', Monitor, process, Pid, _Reason}, #state{flows = Flows} = State) ->
    case Flows of
        #{Pid := #flow{monitor = Monitor} = Flow} ->
            {noreply, forget_process(Pid, Flow, State)};
        _ ->
            {noreply, State}
    end;
handle_info(_Message, State) ->
    {noreply, State}.

%% @private
-spec handle_continue(dispatch, #state{}) ->
    {noreply, #state{}} | {noreply, #state{}, {continue, dispatch}} | {stop, normal, #state{}}.
handle_continue(dispatch, #state{loop = Loop} = State) ->
    case tokamak_nif:loop_dispatch(Loop) of
        {more, Messages} -> {noreply, deliver(Messages, State), {continue, dispatch}};
        {empty, Messages} -> {noreply, deliver(Messages, State)};
        {error, closed} -> {stop, normal, State}
    end.

add(Id, Pid, Reference, #state{handlers = Handlers, flows = Flows} = State) ->
    Flow =
        case Flows of
            #{Pid := Known} -> Known;
            _ -> #flow{monitor = monitor(process, Pid)}
        end,
    Ids = (Flow#flow.ids)#{Id => Reference},
    State#state{
        handlers = Handlers#{Id => Pid},
        flows = Flows#{Pid => Flow#flow{ids = Ids}}
    }.

to_handler(Pid, Reference, Event) ->
    setelement(1, setelement(3, Event, setelement(2, element(3, Event), Reference)), Pid).

%% What was held back for the handler of an id is for the one that takes over.
take_held(Id, #state{handlers = Handlers, flows = Flows} = State) ->
    case Handlers of
        #{Id := Pid} ->
            #{Pid := #flow{held = Held} = Flow} = Flows,
            {Taken, Kept} = split(Id, Held),
            {Taken, State#state{flows = Flows#{Pid := Flow#flow{held = Kept}}}};
        _ ->
            {[], State}
    end.

%% Forgets the handler of an id, and what is held back of its events.
forget(Id, #state{handlers = Handlers, flows = Flows} = State) ->
    case Handlers of
        #{Id := Pid} ->
            #{Pid := Flow} = Flows,
            {Dropped, Held} = split(Id, Flow#flow.held),
            dispatched(length(Dropped), State),
            %% What it has in its mailbox is its own affair from here on.
            give_back(Id, places(Id, Flow), State#state.loop),
            Ids = maps:remove(Id, Flow#flow.ids),
            Accounts = maps:remove(Id, Flow#flow.accounts),
            State#state{
                handlers = maps:remove(Id, Handlers),
                flows = keep(Pid, Flow#flow{ids = Ids, held = Held, accounts = Accounts}, Flows)
            };
        _ ->
            State
    end.

%% Forgets a handler that died, at once: it may have had very many ids. Places are given back as each is unregistered.
forget_process(Pid, #flow{ids = Ids, held = Held}, #state{loop = Loop} = State) ->
    _ = [tokamak_nif:loop_unregister(Loop, Id) || Id <- maps:keys(Ids)],
    dispatched(count(Held), State),
    State#state{
        handlers = maps:without(maps:keys(Ids), State#state.handlers),
        flows = maps:remove(Pid, State#state.flows)
    }.

keep(Pid, #flow{ids = Ids, monitor = Monitor}, Flows) when map_size(Ids) =:= 0 ->
    demonitor(Monitor, [flush]),
    maps:remove(Pid, Flows);
keep(Pid, Flow, Flows) ->
    Flows#{Pid => Flow}.

count(open) -> 0;
count(Held) -> tokamak_held:len(Held).

split(_Id, open) -> {[], open};
split(Id, Held) -> tokamak_held:take(Id, Held).

hold(Event, open) -> hold(Event, tokamak_held:new());
hold(Event, Held) -> tokamak_held:in(element(2, Event), Event, Held).

deliver(Events, #state{loop = Loop} = State) ->
    DeliverOne = fun(Event, Delivered) -> deliver_one(Event, Loop, Delivered) end,
    {Sent, Flows} = lists:foldl(DeliverOne, {0, State#state.flows}, Events),
    dispatched(Sent, State),
    State#state{flows = Flows}.

deliver_one(Event, Loop, {Sent, Flows}) ->
    Pid = element(1, Event),
    case Flows of
        #{Pid := #flow{held = open, sent = N} = Flow} when N < ?WINDOW ->
            Pid ! element(3, Event),
            {Sent + 1, Flows#{Pid := account(Event, Loop, Flow#flow{sent = N + 1})}};
        #{Pid := #flow{held = open} = Flow} ->
            {Sent, Flows#{Pid := begin_looking(Pid, Flow#flow{held = hold(Event, open)})}};
        #{Pid := #flow{held = Held} = Flow} ->
            {Sent, Flows#{Pid := Flow#flow{held = hold(Event, Held)}}};
        _ ->
            {Sent + 1, Flows}
    end.

%% The handler was sent an event: its bytes count, and its place is given back as long as they are few.
account({_Pid, Id, Message}, _Loop, Flow) ->
    count_bytes(Id, bounded_bytes(Message), Flow);
account({Pid, Id, Message, windowed}, Loop, Flow) ->
    #flow{accounts = #{Id := Account} = Accounts} = Counted = count_bytes(Id, bounded_bytes(Message), Flow),
    case Account of
        #account{bytes = Bytes, places = 0} when Bytes < ?BYTES ->
            give_back(Id, 1, Loop),
            Counted;
        #account{places = Places} ->
            Owing = Account#account{places = Places + 1},
            begin_looking(Pid, Counted#flow{accounts = Accounts#{Id := Owing}})
    end.

count_bytes(_Id, none, Flow) ->
    Flow;
count_bytes(Id, Size, #flow{accounts = Accounts} = Flow) ->
    #account{bytes = Bytes, since = Since} = Account = maps:get(Id, Accounts, #account{}),
    Flow#flow{accounts = Accounts#{Id => Account#account{bytes = Bytes + Size, since = Since + Size}}}.

%% The bytes of an event that is bounded in bytes.
bounded_bytes({tokamak, _, {event, _, Type, Data}}) when
    Type =:= subprocess_stdout; Type =:= subprocess_stderr; Type =:= socket_data
->
    bytes(Data);
bounded_bytes(_Message) ->
    none.

bytes(Data) when is_binary(Data) -> byte_size(Data);
bytes({_Address, _Port, Data}) when is_binary(Data) -> byte_size(Data);
bytes(_Data) -> 0.

places(Id, #flow{accounts = Accounts}) ->
    case Accounts of
        #{Id := #account{places = Places}} -> Places;
        _ -> 0
    end.

owes_places(#flow{accounts = Accounts}) ->
    lists:any(fun(#account{places = Places}) -> Places > 0 end, maps:values(Accounts)).

%% Not before all that is being delivered is: it counts in this look.
begin_looking(Pid, #flow{look = idle, monitor = Monitor} = Flow) ->
    self() ! {look, Pid, Monitor},
    Flow#flow{look = 0};
begin_looking(_Pid, Flow) ->
    Flow.

look_again(Pid, #flow{look = Interval, monitor = Monitor} = Flow) ->
    Next = max(?FIRST_LOOK, min(2 * Interval, ?LAST_LOOK)),
    _ = erlang:send_after(Next, self(), {look, Pid, Monitor}),
    Flow#flow{look = Next}.

%% Asking a process for its mailbox waits for that process, so another one asks.
look(Pid, Monitor, #state{flows = Flows} = State) ->
    case Flows of
        #{Pid := #flow{monitor = Monitor, accounts = Accounts} = Flow} ->
            Server = self(),
            OwesPlaces = owes_places(Flow),
            _ = spawn_link(fun() -> Server ! {looked, Pid, Monitor, see(Pid, OwesPlaces)} end),
            Now = maps:map(fun(_Id, Account) -> Account#account{since = 0} end, Accounts),
            State#state{flows = Flows#{Pid := Flow#flow{accounts = Now}}};
        _ ->
            State
    end.

%% `long', or the bytes that are in the mailbox under each reference: `short', where nobody needs to know them.
see(Pid, OwesPlaces) ->
    case process_info(Pid, message_queue_len) of
        {message_queue_len, Length} when Length > ?WINDOW -> long;
        {message_queue_len, Length} when Length > 0, OwesPlaces -> bytes_of(process_info(Pid, messages));
        {message_queue_len, Length} when Length > 0 -> short;
        _ -> #{}
    end.

bytes_of({messages, Messages}) -> lists:foldl(fun add_bytes/2, #{}, Messages);
bytes_of(undefined) -> #{}.

add_bytes(Message, Seen) ->
    case bounded_bytes(Message) of
        none -> Seen;
        Bytes -> maps:update_with(element(2, Message), fun(Before) -> Before + Bytes end, Bytes, Seen)
    end.

%% The handler's mailbox was looked at. If it got short, what was held goes to it, up to a window.
looked(Pid, Monitor, Seen, #state{flows = Flows, loop = Loop} = State) ->
    case Flows of
        #{Pid := #flow{monitor = Monitor} = Flow} when Seen =:= long ->
            State#state{flows = Flows#{Pid := look_again(Pid, Flow)}};
        #{Pid := #flow{monitor = Monitor, held = open} = Flow} ->
            Settled = settle(Seen, Loop, Flow),
            State#state{flows = Flows#{Pid := end_looking(Pid, Settled)}};
        #{Pid := #flow{monitor = Monitor, held = Held} = Flow} ->
            Settled = settle(Seen, Loop, Flow#flow{held = open, sent = 0}),
            Opened = State#state{flows = Flows#{Pid := end_looking(Pid, Settled)}},
            {Events, Rest} = tokamak_held:out(?WINDOW, Held),
            hold_rest(Pid, Rest, deliver(Events, Opened));
        _ ->
            State
    end.

%% The handler was sent a window of what was held.
hold_rest(Pid, Rest, #state{flows = Flows} = State) ->
    case tokamak_held:len(Rest) of
        0 ->
            State;
        _ ->
            #{Pid := Flow} = Flows,
            State#state{flows = Flows#{Pid := begin_looking(Pid, Flow#flow{held = Rest})}}
    end.

end_looking(Pid, Flow) ->
    case owes_places(Flow) of
        true -> look_again(Pid, Flow);
        false -> Flow#flow{look = idle}
    end.

%% Gives back the places of the ids of which few bytes are left. Bytes that nobody looked for may still be there.
settle(short, _Loop, Flow) ->
    Flow;
settle(Seen, Loop, #flow{ids = Ids, accounts = Accounts} = Flow) ->
    Settle = fun(Id, #account{since = Since, places = Places} = Account) ->
        #{Id := Reference} = Ids,
        case maps:get(Reference, Seen, 0) + Since of
            Bytes when Bytes < ?BYTES ->
                give_back(Id, Places, Loop),
                Account#account{bytes = Bytes, places = 0};
            Bytes ->
                Account#account{bytes = Bytes}
        end
    end,
    Flow#flow{accounts = maps:map(Settle, Accounts)}.

give_back(_Id, 0, _Loop) ->
    ok;
give_back(Id, Count, Loop) ->
    _ = tokamak_nif:loop_give_back(Loop, Id, Count),
    ok.

dispatched(0, _State) ->
    ok;
dispatched(Count, #state{loop = Loop}) ->
    _ = tokamak_nif:loop_dispatched(Loop, Count),
    ok.
